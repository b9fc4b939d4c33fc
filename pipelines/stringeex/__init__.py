"""The StringeeX call management API: authentication, request budget, client and call history."""
