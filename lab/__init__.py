"""The lab's core: identity, plans, the store, gates, figures. It knows neither Prefect nor torch."""
