"""Model × Data → Model: four ways to make a model yours, and the floors they must beat."""
