"""Networks from elsewhere and for others: published weights by name, downloads, folders in the manner of the Hub."""
