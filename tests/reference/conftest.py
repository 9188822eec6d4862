"""The scripts here need packages the project does not; their printed output is what the tests read."""

collect_ignore_glob = ["*.py"]
