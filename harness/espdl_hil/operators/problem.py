"""The exception of this room. `check_graph` collects the problems of all nodes in one error."""


class NodeProblem(Exception):  # noqa: N818 - a finding; `check_graph` turns it into an error
    """Why ESP-DL cannot run a node, or would hang on it."""
