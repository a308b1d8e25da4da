"""The JSON API, one module per page: its models and its routes. Money and quantities are strings of decimal digits."""
