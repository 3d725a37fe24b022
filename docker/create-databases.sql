-- Two databases: MLflow and Optuna both keep their version in a table `alembic_version`, so they cannot share one. They
-- belong to a role that is no superuser; the superuser, with whom PostgreSQL's image runs this once, when its volume is
-- empty, has no password afterwards, so that nobody reaches it over the network.
\getenv password POSTGRES_PASSWORD
CREATE ROLE harness LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER harness;
CREATE DATABASE optuna OWNER harness;
ALTER ROLE CURRENT_USER PASSWORD NULL;
