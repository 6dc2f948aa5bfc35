from lisrd_command import main

main()
