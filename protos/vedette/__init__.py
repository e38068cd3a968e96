"""The public API of Vedette as Python code; the modules below are generated from the .proto files beside them."""
