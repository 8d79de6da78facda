"""The same verbs on Ray: reviews are partitioned, and words never meet in one place."""
