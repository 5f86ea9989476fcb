"""The recorder process: a source, a recording, and the command it watches. Standard library only."""
