"""Networks and what runs them. Nothing here knows Prefect or DuckDB."""
