"""What hospital and coordinator share and is not the method: messages, plan, source digest, command lines, disk."""
