"""What the repository is made with but the package is not: recipes, run from a checkout."""
