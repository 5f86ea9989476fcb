"""The recording: a write-ahead log that survives `kill -9`, sealed into Parquet.

`wal`, `writer` and `lock` need only the standard library (the recorder process loads them);
`seal`, `reader` and `follow` need pyarrow and NumPy.
"""
