"""People erased: from every table and every file, with a receipt that can be proven again."""
