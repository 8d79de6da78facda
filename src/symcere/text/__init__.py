"""From reviews to text features: clean, encode once, pool into profiles."""
