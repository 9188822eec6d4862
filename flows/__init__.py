"""One study a file. A module with a `STUDY` constant is a study; nothing else registers it."""
