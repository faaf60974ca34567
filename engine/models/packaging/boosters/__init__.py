"""Models of XGBoost, LightGBM and CatBoost, from their files and as live objects."""
