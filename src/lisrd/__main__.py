from lisrd.cli import main

main()
