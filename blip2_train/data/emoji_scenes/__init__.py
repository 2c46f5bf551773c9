"""The emoji scenes: small images of emoji on coloured grounds, with captions and questions."""
