-- Two databases: MLflow and Optuna both keep their version in a table `alembic_version`, so they cannot share one.
-- PostgreSQL's image runs this once, when its volume is empty.
CREATE DATABASE mlflow;
CREATE DATABASE optuna;
