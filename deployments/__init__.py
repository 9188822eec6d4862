"""Everything that starts work: the command line, the server and worker, deployments."""
