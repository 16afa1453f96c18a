"""What every command needs: requests to the gateway, options, and what is printed."""
