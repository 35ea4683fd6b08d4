"""How the volumes of one host are served to others: servers that outlive the service which started them."""
