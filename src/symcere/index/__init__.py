"""The best items of a taste, without comparing all scores where there are many items. No torch."""
