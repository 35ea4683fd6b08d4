"""What every service of the API shares: requests, routes, versions, pages, faults."""
