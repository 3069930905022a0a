"""What a document of `pdvsim bench` says of the runs and of the host they ran on."""
