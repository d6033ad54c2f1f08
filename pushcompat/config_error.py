"""An invalid configuration. (Apart from the other errors, since applications that publish import it.)"""


class ConfigError(Exception):
    """Invalid configuration: the server cannot start. The message is one line that says what to change."""
