"""The size at which a model sees an image: Detectron2's own arithmetic, for the gateway, which never imports it."""

from vedette_server.contract.contract import ResizeRule


def output_shape(size: tuple[int, int], rule: ResizeRule) -> tuple[int, int]:
    """Height and width that `ResizeShortestEdge` gives an image of this height and width; an edge may become 0.

    Operation for operation what `ResizeShortestEdge.get_output_shape` does, so that halves fall alike.
    """
    height, width = size
    if not rule.shortest_edge:
        return size
    shortest = rule.shortest_edge * 1.0
    scale = shortest / min(height, width)
    rows, columns = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(rows, columns) > rule.longest_edge:
        scale = rule.longest_edge * 1.0 / max(rows, columns)
        rows, columns = rows * scale, columns * scale
    return int(rows + 0.5), int(columns + 0.5)
