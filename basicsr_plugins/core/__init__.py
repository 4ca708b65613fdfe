"""What every floor stands on: errors, option schemas, registration, files. Imports nothing else of this package."""
