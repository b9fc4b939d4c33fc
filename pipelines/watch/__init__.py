"""What an operator looks at: status, alerts, metrics, notifications, readiness for an export, and calls in progress."""
