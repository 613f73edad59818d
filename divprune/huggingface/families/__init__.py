"""What differs between model families: the registry, layouts, vision towers, and what was tested."""
