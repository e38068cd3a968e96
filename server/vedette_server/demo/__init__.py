"""The bundled model: the scenes it was trained on, the recipe, its weights, golden images and card."""
