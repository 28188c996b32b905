"""The composition root: settings in, a running system out; data directory, replay driver, control socket."""
