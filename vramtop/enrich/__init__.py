"""What a process is: facts gathered at capture and recorded as observations. Standard library only."""
