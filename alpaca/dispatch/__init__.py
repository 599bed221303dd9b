"""From a plan to finished folders: frozen first, then run. Local processes; the same folders serve a cluster."""
