"""The report page: results as one HTML file to look at, listen to and check, without a server or a network."""
