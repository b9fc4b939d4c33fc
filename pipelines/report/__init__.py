"""The report: a page that a manager opens in a browser, and the same figures as CSV files."""
