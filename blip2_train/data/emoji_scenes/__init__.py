"""The embedded world: small pictures of emoji on coloured grounds, with captions and questions."""
