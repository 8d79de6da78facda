"""The baselines: one file a system, each tuned on valid and offered the popularity dial."""
