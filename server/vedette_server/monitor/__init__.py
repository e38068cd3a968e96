"""Statistics of the answers, fed by the engine, which never reads them."""
