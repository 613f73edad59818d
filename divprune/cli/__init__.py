"""The `divprune` command: it tells the story of the library with pictures, questions and numbers."""
