"""From images and videos to visual tokens, and what methods ask of the encoder."""
