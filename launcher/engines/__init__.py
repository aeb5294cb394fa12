"""How the processes of the ranks come to life: on this host, or on those of a cluster."""
