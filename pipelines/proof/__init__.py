"""What proves, rebuilds and carries over what was exported: verify, replay, move, and the quarantine."""
