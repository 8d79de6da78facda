"""The towers: a graph encoder and a text projection, and the two models made of them."""
