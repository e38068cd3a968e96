"""The size at which a model sees an image: Detectron2's arithmetic, for the gateway, which never imports Detectron2."""

from vedette_server.contract.contract import ResizeRule


def output_shape(size: tuple[int, int], rule: ResizeRule) -> tuple[int, int]:
    """Return the height and width after `ResizeShortestEdge`; an edge may become 0.

    Repeats the operations of `ResizeShortestEdge.get_output_shape` one by one, so that halves round alike.
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
