"""The `divprune` command: it tells the story of the library with images, questions and numbers."""
