"""The bundled model: its training scenes, recipe, weights, golden images and card."""
