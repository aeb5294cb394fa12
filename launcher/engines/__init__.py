"""How the processes of the ranks come to life: ``local`` on this host, others to come."""
