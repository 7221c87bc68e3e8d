"""What a person reads: answers as JSON first, pages drawn from them."""
