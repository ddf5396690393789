"""The service: the registry's champion answers, over HTTP."""
